"""Operations on whole threads, shared by the saver's thread methods and saver.threads."""
