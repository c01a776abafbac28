"""What is blanked by its shape, and what is not."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from penstock.core.errors import PenstockError, Problem, RecipeError
from penstock.core.events import Event, Events
from penstock.core.redact import (
    BLANK,
    is_secret_name,
    learn,
    redacted,
    redacted_data,
    redacted_output,
    redacted_url,
    redacted_words,
)

pytestmark = pytest.mark.usefixtures("forgetful")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "cannot read s3://AKIDEXAMPLE:wJal/rXUt+nF@bucket/x: no",
            "cannot read s3://***:***@bucket/x: no",
        ),
        ("http://user:hunter2@host:80/x?a=b", "http://user:***@host:80/x?a=b"),
        ("http://user:p%40ss@host", "http://user:***@host"),
        ("'http://user:p@ss@host'", "'http://user:***@host'"),
        ("https://ghtok12345ABCDE@host/x", "https://***@host/x"),
        ("zip://a.csv::https://u:p@h/x.zip", "zip://a.csv::https://u:***@h/x.zip"),
        ("s3://a,http://u:p@h", "s3://a,http://u:***@h"),
        ("postgresql://u:p@h/db", "postgresql://u:***@h/db"),
        (
            "https://acc.blob/x?sv=2020&sig=ab%2Bc%3D&se=1",
            "https://acc.blob/x?sv=2020&sig=***&se=1",
        ),
        (
            "https://b/x?X-Amz-Credential=AK%2F1&X-Amz-Signature=0a1b",
            "https://b/x?X-Amz-Credential=***&X-Amz-Signature=***",
        ),
        (
            "AccountName=a;AccountKey=Zm9v==;EndpointSuffix=x",
            "AccountName=a;AccountKey=***;EndpointSuffix=x",
        ),
        ("https://h/x?access_token=abc&y=1", "https://h/x?access_token=***&y=1"),
        ("https://maps/x?key=AIzaSyA1234567890", "https://maps/x?key=***"),
        (
            "unrecognized arguments: --password hunter2",
            "unrecognized arguments: --password ***",
        ),
        ("--storage-secret='a b'", "--storage-secret=***"),
        ("password=hunter2 host=h", "password=*** host=h"),
        (
            '{\'secret_key\': \'a\', "token": "b\\"c"}',
            "{'secret_key': '***', \"token\": \"***\"}",
        ),
        ("Authorization: Bearer eyabc123", "Authorization: ***"),
        ("sent with bearer abc123def456", "sent with bearer ***"),
        ("a JWT eyJhbGciOiJI.eyJzdWIiOiIx.SflKxwRJ", "a JWT ***"),
        ("key ghp_abcdefghijklmnopqrstuvwxyz0123456789", "key ***"),
        ("'s3://KEY:SECR...", "'s3://***:***@"),
        ("redirect=http%3A%2F%2Fu%3Ahunter%40h", "redirect=http%3A%2F%2Fu%3A***%40h"),
    ],
)
def test_a_secret_is_known_by_its_shape(text, expected):
    assert redacted(text) == expected
    assert redacted(expected) == expected


P = "planted-7Xq"


@pytest.mark.parametrize(
    "text",
    [
        # URLs: encoded twice, with an escaped slash, with a space or a quote in the password, broken over a
        # line, without their scheme
        f"x?u=http%253A%252F%252Fme%253A{P}%2540h",
        f"http:\\/\\/me:{P}@host\\/x",
        f"http:\\u002f\\u002fme:{P}@host",
        f"http://me:plan {P}@host/x",
        f"http://me:plan'{P}@host/x",
        f"http://me:plan\n{P}@host/x",
        f"http://me:{P}%40h/x",
        f"http://me:{P}%40host:80/x",
        f"//me:{P}@host/x",
        f"cannot connect to me:{P}@db.host:5432/x",
        f"s3://{P}@bucket/x",
        f"http://me:{P}@[::1]:9/x",
        # parameters: of a URL inside another, with an encoded name, with a value in braces
        f"url=https%3A%2F%2Fh%2Fx%3Fsig%3D{P}%26a%3D1",
        f"https://h/x?access%5Ftoken={P}",
        f"https://h/x?a=1&amp;sig={P}",
        f"Uid=me;Pwd={{plan;{P}}};",
        f"https://h/x?GoogleAccessId=a&Signature={P}",
        f"https://h/cb#access_token={P}",
        f"jdbc:postgresql://h/db?user=me&password={P}",
        # fields: YAML, TOML, JSON in JSON, Python's reprs, XML, lists
        f"password: {P}",
        f"  api_key: '{P}' # x",
        f'api_key = "{P}"',
        f"token -> {P}",
        f"private_key: |\n  {P}",
        f"--set source={{path: x, password: {P}}}",
        '{"a": "{\\"password\\": \\"' + P + '\\"}"}',
        f"{{b'password': b'{P}'}}",
        f"('password', '{P}')",
        f"[('Authorization', 'Bearer {P}')]",
        f"Client(password='{P}', n=1)",
        f"<SecretAccessKey>{P}</SecretAccessKey>",
        f"<SignatureProvided>{P}</SignatureProvided>",
        f'{{"Set-Cookie": ["session={P}"]}}',
        f'{{"passwords": ["{P}", "b"]}}',
        f"--password \\\n {P}",
        f"PGPASSWORD={P}",
        f"SMTP_PASS={P}",
        f"password ={P}",
        f"password= {P}",
        f"Password:{P}",
        f"api-key:'{P}'",
        f"auth=('me', '{P}')",
        f"password:\n    {P}",
        f"['penstock', '--api-key', '{P}']",
        # sentences and headers
        f"the password is {P}",
        f"the password '{P}' is wrong",
        f'failed for user "x" using password "{P}"',
        f"curl -u me:{P} http://h",
        f"machine h login me password {P}",
        f'Authorization: Digest username="u", response="{P}"',
        f"Authorization: Basic\n {P}",
        f"b'Authorization: Bearer {P}'",
        f'OAuth oauth_token="{P}", oauth_signature="{P}"',
        # well-known beginnings
        f"https://hooks.slack.com/services/T00000000/B00000000/{P}",
        f"https://discord.com/api/webhooks/123/{P}",
        f"ya29.a0{P}-0123456789",
        "sk_live_planted7Xq1234567890ab",
        f"SG.{P}0123456789.{P}0123456789",
        "npm_planted7Xqdefghijklmno0123456789abc",
        f"-----BEGIN PGP PRIVATE KEY BLOCK-----\n{P}\n-----END PGP PRIVATE KEY BLOCK-----",
        f"-----BEGIN EC PRIVATE KEY-----\\n{P}\\n-----END EC PRIVATE KEY-----\\n",
        f"{'planted7Xq' * 9}"[:86] + "==",
        "123456789:AAplanted7Xq_0123456789abcdefghijklmno",
    ],
)
def test_a_secret_is_seen_in_no_shape(text):
    said = redacted(f"cannot go on: {text}")
    assert "lanted" not in said and "7Xq" not in said and "***" in said
    assert redacted(said) == said


@pytest.mark.parametrize(
    "text",
    [
        # clients: the password beside its letter, behind it, in a list of arguments
        "mysql -u root -p{} db",
        "mysqldump -h h -p'{}' db",
        "mariadb-dump -p{}",
        "['mysql', '-u', 'root', '-p{}']",
        "sshpass -p {} ssh h",
        "redis-cli -h h -a {}",
        "['redis-cli', '-a', '{}']",
        "mongosh -u me -p {}",
        "docker login -u me -p {} registry",
        "ldapsearch -x -w {}",
        "unzip -P {} a.zip",
        "7z x -p{} a.7z",
        # cells of a table with tabulators, as they are and in a repr
        "password\t{}",
        "user\tme\npassword\t{}\nhost\tdb",
        "me\tpassword\t{}\tx",
        "API_KEY \t {}",
        "'password\\t{}'",
        # without a scheme, and the host is one word
        "cannot connect to me:{}@db",
        "me:{}@db.",
        "('me:{}@db', 3306)",
        "me:{}@h: timed out",
    ],
)
@pytest.mark.parametrize("secret", [P, "hunter22", "S3cret!x"])
def test_a_secret_of_a_client_a_cell_or_a_host_of_one_word_is_known(text, secret):
    said = redacted(text.format(secret))
    assert secret not in said and "***" in said
    assert redacted(said) == said


@pytest.mark.parametrize(
    "text", ["mysql -psecret", "mysql -u a -ptrain", "sshpass -p secret ssh h"]
)
def test_behind_a_client_s_letter_an_ordinary_word_is_a_secret(text):
    assert "***" in redacted(text)


@pytest.mark.parametrize(
    "text",
    [
        "mysql -u root -p",
        "mysql -p db",
        "mysql is slow, and cp -pR a b is not",
        "the mysql table has -1 and a -p value",
        "mkdir -p Folder2x",
        "docker run -p8080:80 image",
        "ssh -p 2222 host",
        "zip -r a b",
        "password\tsecret",
        "password\tage\tcity",
        "login\tpassword\ttoken",
        "password\tuser_name\tage_2",
        "password\tuserName",
        "password\t12",
        "password\tis required here",
        "tokens\tFolder2x",
        "C:\\secret\\temp2",
        "at 10:30@noon",
        "image:latest@registry",
        "mailto:john22x@host",
        "mailto:john22x@host.example",
        "cc:a.b@c",
        "torch:2.1.0@cpu",
        "numpy:1.26.4rc1@conda",
        "npm:react-dom18@next",
        "git:feature-12@main",
        "line 3:column12@file",
        "key:value@pos",
        "2026-01-01T10:00:00@host",
    ],
)
def test_text_that_looks_a_little_like_one_stays(text):
    assert redacted(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "https://host:8080/a@b.csv",
        "abfs://container@account.dfs.core.windows.net/x",
        "sftp://me@host/x",
        "s3://team/penstock/2020:01/x@2x.png",
        "inputs.token: float32 is no feature",
        "pad_token=<pad>",
        "key: id",
        "send the header  Authorization: Bearer <token>",
        "the bearer token that requests must bring",
        "serve.token_env is SERVE_TOKEN",
        "--secret bucket --token-env NAME",
        "http://[::1]:8080/x",
        "the secret of a good basic table is its token column",
        "password: category, token: float32",
        "the password is wrong",
        "image:tag@sha256:0a1b2c3d4e",
        "- token: there is no such word",
        "docker run -u 1000:1000",
        "('token', 'amount')",
        "['password', 'amount_2']",
        "the password 'train'",
        "far@0a1b2c3d",
        "2026-01-01T10:00:00 a@b.example",
        "http://host:8080 and me@host.example",
        "r.yaml has 2 credentials:\n  - a: b1",
        "password:int64 token:string",
        "['--secret', 'bucket-1']",
        "https://host/x?key=7&page=2",
        "2020-01-01T00:00 a@b.c",
        "git@host:me/x.git",
        "x = 3; y == 4",
    ],
)
def test_what_is_no_secret_stays(text):
    assert redacted(text) == text


@pytest.mark.parametrize(
    ("name", "is_secret"),
    [
        ("password", True),
        ("api_key", True),
        ("apiKey", True),
        ("X-Amz-Security-Token", True),
        ("AccountKey", True),
        ("aws_secret_access_key", True),
        ("storage_options.secret", True),
        ("SAS", True),
        ("client-secret", True),
        ("connection_string", True),
        ("db_passwd", True),
        ("token_env", False),
        ("key", False),
        ("keys", False),
        ("tokenizer", False),
        ("max_tokens", False),
        ("pad_token", False),
        ("password_file", False),
        ("spark.hadoop.fs.s3a.secret.key", True),
        ("spark.hadoop.fs.s3a.access.key", True),
        ("spark.executor.memory", False),
        ("fs.azure.account.key.team.blob.core.windows.net", True),
        ("spark.sql.shuffle.partitions", False),
        ("PGPASSWORD", True),
        ("SMTP_PASS", True),
        ("SSHPASS", True),
        ("passwords", True),
        ("api_keys", True),
        ("password1", True),
        ("clientsecret", True),
        ("DATABASE_DSN", True),
        ("REDISCLI_AUTH", True),
        ("masterKey", True),
        ("forward_pass", False),
        ("secretary", False),
        ("tokens", False),
        ("author_keys", False),
        ("AWS_ACCESS_KEY_ID", False),
        ("primary_key", False),
        ("passenger", False),
        ("design", False),
        ("author", False),
        ("", False),
        ("***", False),
    ],
)
def test_names_tell(name, is_secret):
    assert is_secret_name(name) is is_secret


def test_keys_of_mappings_hide_their_values_and_lose_none():
    data = {
        "password": "hunter2x",
        "schema": {"token": "float32", "password": "category"},
        "at password=ab12cd": 1,
        "at password=ef34gh": 2,
        "keys": ["api_key=x9y8"],
    }
    assert redacted_data(data) == {
        "password": "***",
        "schema": {"token": "float32", "password": "category"},
        "at password=***": 1,
        "at password=*** (2)": 2,
        "keys": ["api_key=***"],
    }
    assert redacted_data({"token": "abc-123"}, by_name=False) == {
        "token": "abc-123"
    }  # a column of a result
    learn({"https://me:keyPl4nted@host/x": {"passwords": ["listPl4nted"]}})
    assert redacted("keyPl4nted listPl4nted") == "*** ***"


def test_a_result_may_have_a_column_called_token():
    text = '{"schema": {"token": "string", "password": "int64"}, "url": "http://u:p@h"}'
    assert redacted_output(text) == text.replace(":p@", ":***@")


def test_a_command_line():
    words = [
        "penstock",
        "run",
        "r.yaml",
        "--set",
        "source.path=s3://K:S@b",
        "--password",
        "hunter2",
        "--secret",
        "bucket",
        "--token-env",
        "T",
    ]
    assert redacted_words(words) == [
        "penstock",
        "run",
        "r.yaml",
        "--set",
        "source.path=s3://K:***@b",
        "--password",
        "***",
        "--secret",
        "bucket",
        "--token-env",
        "T",
    ]


def test_errors_and_events_are_redacted_where_they_are_made():
    url = "https://me:hunter2x@host/x"
    assert "hunter2x" not in str(PenstockError(f"no {url}"))
    error = RecipeError.of([Problem(("source", "path"), f"found {url!r}")], where=url)
    assert "hunter2x" not in f"{error} {error.message} {error.problems}"
    heard: list[Event] = []
    Events(heard.append).warn(f"slow: {url}", files=[url], more={"at": (url,)})
    assert (
        "hunter2x" not in repr(heard) + heard[0].line()
        and "https://me:***@host/x" in heard[0].fields["text"]
    )


@settings(
    max_examples=60, deadline=None
)  # each is remembered, and looked for in all that follow
@given(
    st.text(
        st.characters(
            exclude_categories=("Cs", "Cc", "Zs", "Zl", "Zp"),
            exclude_characters="@/?#:%\"'<>`*.",
        ),
        min_size=1,
        max_size=30,
    )
)
def test_no_password_of_a_url_is_left_in_it(password):
    assume(password != "x-oauth-basic")  # the user before it is the secret
    assert redacted_url(f"https://me:{password}@host/x") == f"https://me:{BLANK}@host/x"
    assert (
        redacted(f"cannot read https://me:{password}@host/x.")
        == f"cannot read https://me:{BLANK}@host/x."
    )


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.text(max_size=8), inner, max_size=3)
        ),
    )
)
def test_data_without_a_secret_is_as_it_was(data):
    def plain(value):
        return (
            redacted(value) == value
            if isinstance(value, str)
            else (
                all(map(plain, value.items() if isinstance(value, dict) else value))
                if isinstance(value, (list, tuple, dict))
                else True
            )
        )

    if plain(data):
        assert redacted_data(data) == data


@pytest.mark.parametrize(
    "text",
    [
        "x" * 300_000,
        "a.b-c:=" * 30_000,
        "http://" * 20_000,
        "'a': '" * 30_000,
        "http://u:" * 10_000,
        "--a " * 30_000,
        "%3A%2F%2F" * 20_000 + "%40",
        "bearer " * 30_000,
        "password '" * 20_000,
        "('a', '" * 30_000,
        "<a>b" * 40_000 + "</",
        "a: " * 40_000,
        "me:pwpw" * 20_000 + "@",
        "-u a:" * 30_000,
        "http:\\/\\/u:" * 10_000 + "@",
        "http://u:p q" * 10_000 + "@",
        "%3Fsig%3D" * 20_000,
        "-----BEGIN PRIVATE KEY-----" * 5_000,
        "password\n" * 20_000,
        "token: |\n " * 20_000,
        '\\"a\\": \\"' * 20_000,
        "'a': [" * 20_000,
        "token:" * 30_000,
        "token:\n " * 30_000,
        "'--a', '" * 20_000,
        "auth=(" * 30_000,
        "login a password " * 10_000,
        "PuTTY-User-Key-File-2" * 5_000,
    ],
)
def test_long_texts_cost_no_more_than_their_length(text):
    assert isinstance(
        redacted(text), str
    )  # a regular expression that goes back would take hours
