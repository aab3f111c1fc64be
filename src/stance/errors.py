"""The one exception for mistakes that a user can make and mend.

Scripts print its message as a single line and exit with code 2. Anything else that is raised is a
defect of the program and keeps its traceback.
"""


class UserError(Exception):
    """Say in one line what is wrong: the file, line, key or column, and the value found there."""
