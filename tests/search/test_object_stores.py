import pytest

from search.errors import ConfigurationError
from search.object_stores import Bucket, open_s3, patient_uri, sentence
from search.place import Place

SECRET = "nobody-may-see-this"


@pytest.mark.parametrize(
    ("address", "what"),
    [
        (f"s3://AKIA:{SECRET}@bucket/x", "what stands before the @"),
        (f"s3://{SECRET}@bucket/x", "what stands before the @"),
        (f"s3://bucket/x?secret_key={SECRET}", "secret_key"),
        (f"s3://bucket/x?access_key=AKIA&session_token={SECRET}", "access_key, session_token"),
        (f"gs://me:{SECRET}@bucket/x", "what stands before the @"),
        (f"gs://bucket/x?access_token={SECRET}", "access_token"),
        (f"abfs://:{SECRET}@account/x", "what stands before the @"),
    ],
)
def test_credentials_in_an_address_are_refused_without_repeating_them(address, what):
    with pytest.raises(ConfigurationError) as caught:
        Place.at(address)
    [problem] = caught.value.problems
    assert f"came with {what}; take that out, and put credentials into " in problem
    assert SECRET not in problem


def test_where_credentials_go_is_said_for_each_kind_of_store():
    with pytest.raises(ConfigurationError, match=r"into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or ~/\.aws/cred"):
        Place.at("s3://a:b@bucket")
    with pytest.raises(ConfigurationError, match="into the file that GOOGLE_APPLICATION_CREDENTIALS names"):
        Place.at("gs://a:b@bucket")


def test_all_that_an_address_gets_wrong_is_said_at_once():
    with pytest.raises(ConfigurationError) as caught:
        Place.at("s3:///folder?acl=public&regoin=x")
    options = "endpoint_override, force_virtual_addressing, region, scheme, tls_ca_file_path"
    assert caught.value.problems == [
        f"storage_copy: the options of s3:// are {options}, but got 'acl'",
        f"storage_copy: the options of s3:// are {options}, but got 'regoin'",
        "storage_copy: must name a bucket, s3://bucket/folder, but got 's3:///folder?acl=public&regoin=x'",
    ]


@pytest.mark.parametrize(
    ("address", "environment", "endpoint"),
    [
        ("s3://b/x?endpoint_override=localhost:9000&scheme=http", {}, "localhost:9000"),
        ("s3://b/x?endpoint_override=http://localhost:9000/", {}, "localhost:9000"),
        ("s3://b/x", {"AWS_ENDPOINT_URL": "http://localhost:1"}, "localhost:1"),
        ("s3://b/x", {"AWS_ENDPOINT_URL": "http://a", "AWS_ENDPOINT_URL_S3": "http://localhost:2"}, "localhost:2"),
        ("s3://b/x?endpoint_override=localhost:3", {"AWS_ENDPOINT_URL": "http://localhost:1"}, "localhost:3"),
    ],
)
def test_the_endpoint_is_the_address_s_own_or_the_environment_s(address, environment, endpoint):
    assert open_s3(f"{address}", environment).endpoint == endpoint


def test_a_bucket_is_called_without_its_options_and_its_folder_is_decoded():
    bucket = open_s3("s3://b/my%20studies/?endpoint_override=localhost:9000&region=eu-central-1", {})
    assert (bucket.folder, bucket.name) == ("b/my studies", "s3://b/my%20studies")
    assert bucket.filesystem.region == "eu-central-1"


BUCKET = Bucket(None, None, "bucket/studies/it", "s3://bucket/studies/it", "localhost:9000")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "When listing objects under key 'x': AWS Error NO_SUCH_BUCKET during ListObjectsV2 operation: y",
            "there is no bucket 'bucket' at localhost:9000; make it, or correct storage_copy",
        ),
        (
            "AWS Error NETWORK_CONNECTION during GetObject operation: curlCode: 7, Could not connect; Details: Failed",
            "localhost:9000 does not answer (Could not connect)",
        ),
        (
            "AWS Error UNKNOWN (HTTP status 301) during HeadObject operation: No response body.",
            "the bucket 'bucket' is of another region; add ?region=NAME to storage_copy",
        ),
        (
            "AWS Error UNKNOWN (HTTP status 507) during PutObject operation: the disk is full",
            "localhost:9000 answered UNKNOWN 507 to PutObject: the disk is full",
        ),
        ("something else", "something else"),
    ],
)
def test_errors_become_sentences(text, said):
    assert sentence(OSError(text), BUCKET) == said


@pytest.mark.parametrize(
    "code", ["ACCESS_DENIED", "SIGNATURE_DOES_NOT_MATCH", "INVALID_ACCESS_KEY_ID", "EXPIRED_TOKEN"]
)
def test_refused_credentials_are_told_from_a_store_that_is_away(code):
    said = sentence(OSError(f"AWS Error {code} during PutObject operation: no"), BUCKET)
    assert said.startswith(f"the credentials were refused for 'bucket' at localhost:9000 ({code} in PutObject); ")


@pytest.mark.parametrize(
    ("address", "patient"),
    [
        ("gs://bucket/x", "gs://bucket/x?retry_limit_seconds=30"),
        ("gs://bucket/x?scheme=http", "gs://bucket/x?scheme=http&retry_limit_seconds=30"),
        ("gs://bucket/x?retry_limit_seconds=5", "gs://bucket/x?retry_limit_seconds=5"),
        ("file:///disk", "file:///disk"),
    ],
)
def test_google_s_client_is_not_left_to_try_for_a_quarter_of_an_hour(address, patient):
    assert patient_uri(address) == patient
