"""The student: data and loss, training on soft labels, evaluation against the teacher."""
