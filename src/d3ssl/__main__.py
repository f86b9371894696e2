import sys

from d3ssl.cli.main import main

sys.exit(main())
