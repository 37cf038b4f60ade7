"""Three jobs that are useful as they are, and the demo that runs them.

    from protojobs_examples.send_email import Email, SendEmailJob
    from protojobs_examples.process_image import ImageWork, ProcessImageJob
    from protojobs_examples.data_cleanup import Cleanup, DataCleanupJob

All three follow one rule that is worth copying. **What to do is data, where it may be done is configuration.** A job's
data lies in a store that people and programs can write to, so it holds no password, no host and no right: the worker
that runs the job has those from its environment, and checks the data against them.

Importing this package imports none of them: Pillow and SQLAlchemy are loaded by the modules that need them.
"""
