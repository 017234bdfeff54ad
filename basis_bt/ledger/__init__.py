"""What a trial recorded as tables, and the identity that its books must satisfy."""
