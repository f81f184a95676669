"""Units matched: two spaces that were trained apart become one, or one becomes smaller."""
