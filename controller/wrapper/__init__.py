"""The supervisor that runs inside the job. Standard library only, Python 3.9 and later: it is shipped to the nodes."""
