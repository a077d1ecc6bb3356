"""Actors: functions declared as jobs, their options, and the commands that sending them makes."""
