"""The classifiers, all behind the protocol of `stance.classifiers.base`."""
