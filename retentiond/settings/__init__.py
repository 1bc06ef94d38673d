"""Settings: the only reader of the environment. `load(os.environ)` gives `Settings` or says all that is wrong."""

from retentiond.settings.load import Need, load
from retentiond.settings.models import Beside, LogFormat, LogLevel, Settings, Token
from retentiond.settings.sources import default_policy, is_secret

__all__ = ["Beside", "LogFormat", "LogLevel", "Need", "Settings", "Token", "default_policy", "is_secret", "load"]
