"""What the pages share: cached reading, charts, words, and the frame around a page."""
