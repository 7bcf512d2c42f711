"""Jobs on Amazon SageMaker.

`backend` runs a job: `planning` makes a `plan` of its spec, `uploads` brings local data to S3, `record` remembers what
the job is made of, and `request` (boto3) or `sdk` (the SDK's `SKLearn`) spells the plan for CreateTrainingJob. `status`
reads DescribeTrainingJob, `cloudwatch` the log, `service_errors` what AWS says when it refuses.
"""
