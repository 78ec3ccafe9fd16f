"""What people ask of the controller's code beside running it. The command line calls it with arguments it has read."""
