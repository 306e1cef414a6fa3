"""What the pages share: cached reading, charts, words, and the frame around a page."""

from topbill.domain.collecting import load_first

# Here, before any page's modules are loaded.
load_first()
