"""Commands about the container images in run_dir."""
