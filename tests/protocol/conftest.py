"""Tests of the frame protocol alone: no process, no socket."""
