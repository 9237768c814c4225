"""What each protocol asks and how it is answered: one requests and one answers module each."""
