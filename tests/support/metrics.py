"""What a process of a stack tells about itself at its management port."""

from __future__ import annotations

import re
import urllib.request


def metric(url: str, key: str, name: str) -> int:
    """The value of a metric without labels. url, key: of the management port. Raises OSError."""
    request = urllib.request.Request(url + "/metrics", headers={"Authorization": f"Bearer {key}"})
    with urllib.request.urlopen(request) as answer:
        text = answer.read().decode()
    return int(float(re.findall(rf"^{name} (\S+)", text, re.MULTILINE)[0]))
