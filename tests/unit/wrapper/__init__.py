"""The supervisor that runs inside the job."""
