"""What words mean, once each: decisions, rewards, metrics, features, slates, chance."""
