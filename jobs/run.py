"""What is handed to ``ray job submit``: ``python jobs/run.py jobs/demo.yaml --set select.budget=500``."""

import sys

from gotd_ray.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["run", "--json"]
    main()
