"""Whether the kas files are what kas takes, and name files that are there: kas_files.py FILE..."""

import json
import os
import sys

import jsonschema
import kas
import yaml

LAYER = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "meta-rust-ota")


def main():
    with open(os.path.join(os.path.dirname(kas.__file__), "schema-kas.json"), encoding="utf-8") as file:
        schema = json.load(file)
    for path in sys.argv[1:]:
        with open(path, encoding="utf-8") as file:
            text = file.read()
        read = yaml.safe_load(text)
        try:
            jsonschema.validate(read, schema)
        except jsonschema.ValidationError as error:
            sys.exit("%s: %s at %s" % (path, error.message, "/".join(map(str, error.absolute_path))))
        named = [os.path.join(os.path.dirname(path), name) for name in read["header"].get("includes", [])]
        named += [os.path.join(LAYER, line.split()[1]) for line in text.splitlines() if line.strip().startswith("require ")]
        for name in named:
            if not os.path.isfile(name):
                sys.exit("%s: there is no %s" % (path, name))
    print("yocto/check: %d kas files" % len(sys.argv[1:]))


if __name__ == "__main__":
    main()
