"""What is handed to ``ray job submit`` for a curve of sizes: ``python jobs/curve.py run.yaml``."""

import sys

from gotd_ray.cli import main

if __name__ == "__main__":
    sys.argv[1:1] = ["curve", "--json"]
    main()
