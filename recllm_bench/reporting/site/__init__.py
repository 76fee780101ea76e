"""The HTML page of run records: what it shows (:mod:`.leaderboards`, :mod:`.standings`, ...), and its template."""
