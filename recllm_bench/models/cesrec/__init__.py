"""CESRec: what a user says about a recommendation rewrites the history that the recommender reads."""
