"""All stored runs at a glance: the page `index.html` beside them, and the same in a terminal."""
