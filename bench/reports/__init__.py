"""Results as people read them: a terminal's table, Markdown, CSV and one HTML page. All are drawn from results.json."""
