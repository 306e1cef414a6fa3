"""Lines of a lock file that hold for a Python and a processor under Linux, without their markers.

python .ci/markers.py 3.13 aarch64 <requirements.lock
"""

import re
import sys

# pip brings the library along; nothing else needs to be installed for this.
from pip._vendor.packaging.markers import Marker

version, machine = sys.argv[1:]
environment = {
    "python_version": version,
    # The newest patch: what is fixed before it doesn't keep a distribution's Python from working.
    "python_full_version": f"{version}.99",
    "platform_machine": machine,
    "platform_system": "Linux",
    "sys_platform": "linux",
    "os_name": "posix",
    "platform_python_implementation": "CPython",
    "implementation_name": "cpython",
    "extra": "",
}
holds = True
for line in sys.stdin:
    if not line.startswith((" ", "#", "\n")):
        pin, _, marker = line.rstrip("\\\n ").partition(" ; ")
        holds = not marker or Marker(marker).evaluate(environment)
        line = f"{pin} \\\n"
    if holds and not re.match(r"\s*#", line):
        print(line, end="")
