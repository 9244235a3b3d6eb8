import pytest

from pixelclip_sdk.support.redact import redact


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("rtsp://me:secret@cam.local:554/live?token=secret", "rtsp://cam.local:554/live?…"),
        ("http://me:se@c/re?t@host/x.mp4", "http://host/x.mp4"),
        ("http://me:12/secret@host/x.mp4", "http://host/x.mp4"),
        ("http://host/x.mp4;token=secret", "http://host/x.mp4;…"),
        ("http://host/x.mp4#secret", "http://host/x.mp4#…"),
        ("http://host/@user/x.mp4?mail=a@b", "http://host/@user/x.mp4?…"),
        ("rtsp://[fe80::1]:554/user=admin&password=secret", "rtsp://[fe80::1]:554/user=…&password=…"),
        ("rtmp://host/app/secret", "rtmp://host/app/…"),
        ("rtmps://host/app", "rtmps://host/app"),
        ("/home/me/a;b#c.mp4", "/home/me/a;b#c.mp4"),
    ],
)
def test_credentials_are_removed_from_addresses(address, shown):
    assert redact(address) == shown
    assert redact(shown) == shown
