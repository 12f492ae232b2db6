"""`wovr evaluate --metrics advantage`: is what GRPO takes for advantage right?"""
