"""Prints the JSON Schema of a manifest: `python -m schemas.manifest > deploy/services.schema.json`."""

import json
import sys

from schemas.manifest import editor_schema

json.dump(editor_schema(), sys.stdout, indent=2, ensure_ascii=False)
sys.stdout.write("\n")
