"""Pages for a browser: one file each, with its style and its charts in it, and no script.

A page is made of plain data. Every value is escaped, nothing is fetched from anywhere, and it follows the
reader's light or dark mode and the width of the screen.
"""

from penstock.pages.profile_page import profile_page

__all__ = ["profile_page"]
