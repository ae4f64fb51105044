"""Views of a workspace for people: status, explanations, contact sheets and the HTML report."""
