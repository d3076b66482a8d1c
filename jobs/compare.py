"""What is handed to ``ray job submit`` for a comparison of arms: ``python jobs/compare.py run.yaml``."""

import sys

from gotd_ray.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["compare", "--json"]
    main()
