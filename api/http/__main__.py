"""`python -m api.http`."""

from api.http.serve import main

main()
