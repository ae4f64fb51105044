"""Face detection, landmarks, pose, visibility and FFHQ alignment."""
