"""What is handed to ``ray job submit`` every day for a corpus that changes: ``python jobs/refresh.py run.yaml``."""

import sys

from gotd_ray.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["refresh", "--json"]
    main()
