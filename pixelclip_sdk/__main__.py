"""``python -m pixelclip_sdk`` runs `pixelclip`."""

import sys

from pixelclip_sdk.cli.main import main

sys.exit(main())
