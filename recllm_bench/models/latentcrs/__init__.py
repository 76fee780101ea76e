"""LatentCRS: latent intents that join what a user did with what the user said."""
