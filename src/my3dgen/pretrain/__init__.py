"""Training a prior: synthetic heads in, generator, encoder and discriminator out."""
