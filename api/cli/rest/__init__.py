"""The API as the command line sees it: its calls, and its event streams."""
