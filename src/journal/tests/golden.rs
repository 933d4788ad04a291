pub(super) fn nothing() {}
