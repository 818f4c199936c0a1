"""What the rules find in pages that wait for a repair: each by its own words, so that nothing else slips through.

A repaired entry is to be deleted here.
"""

import re

REPORTED = {
    "docs/": [
        r"^contrast: code > span\.(m[if]|nb|bp) '[^']*': 4\.4[58]",  # numbers and built-in names in dark code
        r"contrast: small\.doc\.doc-label > code '[^']*': 4\.49",  # labels of the reference
        r"^printed: (contrast|print): .*\b(a|autorefs-internal)\b.*: 2\.(09|28)",  # links of a dark page
        r"^printed: contrast: '.*' in figure ",  # figures of a dark page
        r"small: '.*' in figure '.*': [89]\.\d px",  # figures of 4.3 inches
        r"^small: .* > code '[^']*': 1[01]\.\d px",  # code in tables, captions and links on a phone
        r"names: td > a has no name",  # the link of timm:NAME in the table of models
    ],
    "tune/tune.html": [
        r"^table: div\.scroll > table 'Trial.* has an empty header cell",
        r"^scroller: tr > th '(Method|fedlas|cross-entropy-without-label-smoothing)' stays put",
        r"^scroller: section > div\.scroll 'Method.* shows nothing but the first column",
        r"^sideways: the page is 7\d\d px wide, the screen 703",  # on paper
        r"^clipped: tr > (th 'Failed'|td '0'): ",
    ],
}


def unreported(name, found):
    """What was found on a page and nobody knows of yet."""
    known = [pattern for place, patterns in REPORTED.items() if name.startswith(place) for pattern in patterns]
    return [fault for fault in found if not any(re.search(pattern, fault) for pattern in known)]
