"""The demo, run by `make demo`: `.venv/bin/python deploy/demo/demo.py up | down | clean`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from deploy.demo.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
