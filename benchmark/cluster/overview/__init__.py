"""All stored runs at one look: the page `index.html` beside them, and the same in a terminal."""
