"""`python -m api.gateway`."""

from api.gateway.serve import main

main()
