"""What both ends of a job need: the controller that starts it, and what runs in it. Python 3.9 and its own library."""
