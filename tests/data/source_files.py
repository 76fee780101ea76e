"""Small source files for the tests of preparation."""

from __future__ import annotations

from pathlib import Path

RATINGS = "7::10::5::978300760\n7::20::3::978300100\n9::10::4::978300500\n7::30::4::978300760\n"
MOVIES = (
    "10::Toy Story (1995)::Animation|Children's\n20::Mis\xe9rables, Les (1998)::Drama\n30::Odd::(no genres listed)\n"
)
CSV = "User ID,movieId,rating,Timestamp\nu1,b,4,978300760\nu2,a,5,978300700\nu1,a,3,978300100\n"


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode("latin-1"))
    return path


def dat_files(folder: Path, ratings=RATINGS, movies=MOVIES) -> dict[str, Path]:
    return {"ratings": write(folder / "ratings.dat", ratings), "items": write(folder / "movies.dat", movies)}


def tokens_of(prepared, user: int) -> list[str]:
    return [prepared.catalogue.tokens[item] for item in prepared.histories.of(user)]
