"""One table model, and one renderer for each of text, HTML, Markdown and LaTeX; they know no statistics."""
