"""`python -m pixelclip_sdk` is `pixelclip`."""

import sys

from pixelclip_sdk.cli.main import main

sys.exit(main())
