//! Which of the available endpoints takes the next attempt.
